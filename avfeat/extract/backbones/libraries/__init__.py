"""Image models of other libraries, named as they are there: ``timm:resnet50``.

Each module has ``make(model)``, which `avfeat.extract.backbones.get` calls. They import torch.
"""
