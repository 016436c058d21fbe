"""What is on disk: pictures, masks, and the files of a run."""
