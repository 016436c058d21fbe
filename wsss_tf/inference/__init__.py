"""From a trained network to class activation maps and pseudo labels."""
