"""How exactly GPUs compute in float32."""

import keras


def set_tensor_float_32(allowed):
    """Say whether GPUs may round factors of float32 convolutions and products to TensorFloat-32.

    For the whole process, from now on.

    Args:
      allowed: True, False, or None to leave it as it is.
    """
    if allowed is None:
        return
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "float32")
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(allowed)
