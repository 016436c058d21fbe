"""The kinds of work of `wsss_tf.infer`, each with its own flags."""
