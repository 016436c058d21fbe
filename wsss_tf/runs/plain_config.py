"""A run's configuration as plain values, JSON, which is data where gin is a program.

A gin file may import any module and call what is in it. config.json names factories of this package
only, those that its own recipes name, and numbers, texts and lists; so a run folder from elsewhere
can be used without running what somebody has written into it. It is written where that is enough:
not for a run with modules of the user's own.
"""

import functools
import hashlib
import pathlib
import re

from gin import config_parser

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import read_json, write_json, write_text

_FORMAT = 1
_NAME = r"[A-Za-z_]\w*"
_KEY = re.compile(rf"((?:{_NAME}/)*)({_NAME})\.({_NAME})\.({_NAME})")
_FACTORY = re.compile(rf"((?:{_NAME}/)*)({_NAME})\.({_NAME})")
_IMPORT = re.compile(rf"^from (wsss_tf[\w.]*) import ({_NAME})(?: as ({_NAME}))?$", re.MULTILINE)
_USE = re.compile(rf"(?:^|@|/)({_NAME})\.({_NAME})", re.MULTILINE)
_DYNAMIC = "__gin__.dynamic_registration"


class _NotPlain(Exception):
    """It says more than plain values can."""


class _AsJson(config_parser.ParserDelegate):
    """Has gin's parser make JSON values of what is no literal."""

    def __init__(self):
        self.macros = {}

    def configurable_reference(self, scoped_configurable_name, evaluate):
        return {"factory": scoped_configurable_name, "call": bool(evaluate)}

    def macro(self, scoped_name):
        if scoped_name not in self.macros:
            raise _NotPlain
        return self.macros[scoped_name]


def write(run, text, folders):
    """Write a configuration as gin text and, where that is possible, as plain values.

    Args:
      run: `files.run_folder.RunFolder`.
      text, folders: as in `from_gin`.
    """
    write_text(run.config, text)
    plain = from_gin(text, folders)
    if plain is None:
        run.plain_config.unlink(missing_ok=True)
        return
    # By the hash it knows whether config.gin is still the one that it is made from.
    record = {"format": _FORMAT, "versions": _versions(), "config.gin": _hash(text)}
    write_json(run.plain_config, {**record, **plain})


def read(run, folders):
    """Return the gin text of a run's config.json; None where there is none.

    Args:
      run, folders: as in `write`.

    Raises:
      UserError: it holds anything but plain settings, or its config.gin has been changed.
    """
    path, config = run.plain_config, run.config
    if not path.is_file():
        return None
    value = read_json(path)
    if value.get("format") != _FORMAT:
        raise UserError(
            f"{path}: is of format {value.get('format')!r}, and {_FORMAT} is read; "
            "update wsss_tf, or delete it if you trust config.gin, which is a program."
        )
    if config.is_file():
        text = config.read_bytes().decode("utf-8", "replace")
        if value.get("config.gin") != _hash(text):
            raise UserError(
                f"{config}: is not the one that {path.name} beside it was made from; undo the "
                f"change (give --gin_bindings instead), or delete {path.name} if you trust "
                "config.gin, which is a program."
            )
    try:
        return to_gin(value, folders)
    except ValueError as error:
        raise UserError(f"{path}: is refused, because {error}.") from error


def _versions():
    import keras
    import tensorflow as tf

    import wsss_tf

    return {
        "wsss_tf": wsss_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()


def from_gin(text, folders):
    """Return the settings of gin text as {"modules": .., "settings": ..}, JSON values.

    Args:
      text: with macros before their uses, as `gin.operative_config_str` gives it.
      folders: of the package's recipes, which name the factories that may be used.

    Returns:
      None where that is not possible: it uses modules of the user's own, or is no plain list of
      settings.
    """
    delegate = _AsJson()
    modules, settings = {}, {}
    try:
        for statement in config_parser.ConfigParser(text, delegate):
            if isinstance(statement, config_parser.ImportStatement):
                if statement.module != _DYNAMIC:
                    name = statement.alias or statement.module.rpartition(".")[2]
                    modules[name] = statement.module
            elif not isinstance(statement, config_parser.BindingStatement):
                raise _NotPlain
            elif not statement.arg_name:
                delegate.macros[statement.selector] = statement.value
            else:
                scope = f"{statement.scope}/" if statement.scope else ""
                settings[f"{scope}{statement.selector}.{statement.arg_name}"] = statement.value
        value = {"modules": modules, "settings": settings}
        to_gin(value, folders)
        return value
    except (_NotPlain, ValueError, SyntaxError):
        return None


def to_gin(value, folders):
    """Return the gin text of what `from_gin` gives; nothing in it is anything but a setting.

    Raises:
      ValueError: it holds anything else than factories that the recipes name, and plain values.
    """
    if not isinstance(value, dict):
        raise ValueError("it holds no settings")
    modules, settings = value.get("modules"), value.get("settings")
    if not isinstance(modules, dict) or not isinstance(settings, dict):
        raise ValueError("it holds no modules and settings")
    allowed = _factories(folders)
    known = {module for module, _ in allowed}
    lines = ["from __gin__ import dynamic_registration"]
    for name, module in modules.items():
        if module not in known or not re.fullmatch(_NAME, name):
            raise ValueError(f"it names the module {module!r}, which no recipe of wsss_tf names")
        parent, _, last = module.rpartition(".")
        lines.append(f"from {parent} import {last}" + ("" if name == last else f" as {name}"))

    def check(name, factory):
        if (modules.get(name), factory) not in allowed:
            raise ValueError(f"it names {name}.{factory}, which no recipe of wsss_tf names")

    for key, setting in settings.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise ValueError(f"{key!r} is no setting")
        check(found[2], found[3])
        lines.append(f"{key} = {_literal(setting, check)}")
    return "\n".join(lines) + "\n"


def _literal(value, check):
    """Return a JSON value as gin writes it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "(" + "".join(f"{_literal(one, check)}, " for one in value) + ")"
    if isinstance(value, dict) and value.keys() == {"factory", "call"}:
        found = _FACTORY.fullmatch(str(value["factory"]))
        if found is not None and isinstance(value["call"], bool):
            check(found[2], found[3])
            return f"@{found[0]}" + ("()" if value["call"] else "")
    raise ValueError(f"{str(value)[:80]!r} is no plain value")


def check_bindings(bindings, folders):
    """Check that gin bindings that were found in a run folder are plain settings too.

    Raises:
      ValueError: they import something, or name a factory that no recipe names.
    """
    names = {factory for _, factory in _factories(folders)}
    delegate = _AsJson()
    try:
        for statement in config_parser.ConfigParser("\n".join(bindings), delegate):
            if not isinstance(statement, config_parser.BindingStatement):
                raise ValueError(f"{type(statement).__name__} among its bindings")
            for factory in re.findall(r"'factory': '([^']*)'", repr(statement.value)):
                if factory.rpartition("/")[2].rpartition(".")[2] not in names:
                    raise ValueError(f"it names {factory}, which no recipe of wsss_tf names")
    except (_NotPlain, SyntaxError) as error:
        raise ValueError("its bindings are no plain settings") from error


@functools.cache
def _factories(folders):
    """Return the (module, factory) that the package's recipes name; not those of pipelines."""
    found = set()
    for folder in folders:
        for path in pathlib.Path(folder).rglob("*.gin"):
            if path.parent.name == "pipelines":
                continue
            text = path.read_text(encoding="utf-8")
            modules = {
                alias or name: f"{parent}.{name}" for parent, name, alias in _IMPORT.findall(text)
            }
            found.update(
                (modules[name], factory) for name, factory in _USE.findall(text) if name in modules
            )
    return frozenset(found)
