"""Networks and front ends that no maintained package offers; imported only to build a backbone."""
