"""Networks up to their named feature maps."""
