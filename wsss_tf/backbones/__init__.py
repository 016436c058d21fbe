"""Backbones: networks up to named feature maps; every method takes every one of them.

`backbone(image=None)` gives a functional `keras.Model` from [B, H, W, 3], as `ops.normalize_image`
makes it (`image`: symbolic input; None makes one of any size), to {"stem", "stage1", "stage2",
"stage3", "stage4"}, each [B, h, w, D] after its last activation (or linear, where the docstring
says so), strides ascending: 2 or 4, 4, 8, 16 or 8, and 32, 16 or 8. What its weights want of the
picture, such as other means or blue first, is a layer of the backbone. All else is its own keyword
argument, bound by gin or `functools.partial`. These two every one has:

- `train_batchnorm`: train BatchNorm with batch statistics; False freezes it wholly. (VGG16 has
  none; True puts some in.)
- `frozen_stages`: 0 trains everything; 1 freezes the stem, which is all layers in front of those
  that belong to stage 1 alone; 2 also stage 1; 3 also stage 2; 4 also stage 3.

The model's name is the key of its ImageNet weights in `interop.imagenet`.
"""
