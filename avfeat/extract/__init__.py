"""From clips to feature rows: plan, media, transforms, backbones, engine."""
