"""The pages are true: what they link to and name exists, and they stay short."""

import ast
import functools
import itertools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("gin", "scripts", "tests", "wsss_tf")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))),
]

LONGEST_LINE = 500  # characters
README_LINES = 150

# What a run writes under such names.
MADE_BY_RUNS = {"config.gin", "settings.gin"}
# Flags of other programs, and those that absl gives to all.
FOREIGN_FLAGS = {"direct_num_workers", "direct_running_mode", "help", "logdir"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def test_pages_are_found():
    assert ROOT / "README.md" in PAGES
    assert ROOT / "gin/README.md" in PAGES


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@every_page
def test_lines_are_short(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [i for i, line in enumerate(lines, 1) if len(line) > LONGEST_LINE] == []


# === Links and files ===


@every_page
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("https://")]
    assert [target for target in targets if not _leads_somewhere(page, target)] == []


def _leads_somewhere(page, target):
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(path):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def expand(pattern):
    """Return the names that "a{b,c}" stands for."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def test_expand():
    assert expand("gin/{cam,seam}.gin") == ["gin/cam.gin", "gin/seam.gin"]
    assert expand("gin/size/photos*.gin") == ["gin/size/photos*.gin"]


@every_page
def test_named_files_exist(page):
    """By their path from the root, or in gin, in the package, or beside the page."""
    text = page.read_text(encoding="utf-8")
    endings = r"\.(?:py|gin|sh|c|md|yaml|config)\b"
    named = set(re.findall(rf"(?<![\w./<>~])[\w{{}},*-]+(?:/[\w{{}},*.-]+)*{endings}", text))
    folders = (ROOT, ROOT / "gin", ROOT / "wsss_tf", page.parent)
    missing = [
        name
        for pattern in named - MADE_BY_RUNS
        for name in expand(pattern)
        if not name.startswith(("RUN", "table")) and not any(any(f.glob(name)) for f in folders)
    ]
    assert missing == []


# === Commands and their flags ===


@functools.cache
def flags_of(path):
    """Return the flags that a command or a script has.

    Its own, those of modules it imports at its head, and those that functions of theirs define
    which it calls there. (To import the commands instead would define flags twice.)
    """
    if path.suffix == ".sh":
        return set(re.findall(r"--(\w+)", path.read_text(encoding="utf-8")))
    tree = _tree(path)
    at_head = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    flags = _defined(tree)
    for node in at_head:
        for module in filter(None, (_file_of(name, path) for name in _imported(node))):
            flags |= _defined_at_head(module)
            for called in _called(at_head):
                flags |= _defined_by(module, called)
    return flags


@functools.cache
def _defined_at_head(path):
    """Return the flags of a module, and of modules that it imports, without any call."""
    flags = set()
    for node in _tree(path).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            flags |= _defined(node)
        for module in filter(None, (_file_of(name, path) for name in _imported(node))):
            flags |= _defined_at_head(module)
    return flags


@functools.cache
def _defined_by(path, name):
    """Return the flags that a function of a module defines when it is called."""
    functions = {n.name: n for n in _tree(path).body if isinstance(n, ast.FunctionDef)}
    if name not in functions:
        return set()
    others = _called(functions[name].body) - {name}
    return _defined(functions[name]).union(*(_defined_by(path, other) for other in others))


@functools.lru_cache(maxsize=8)
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _calls(nodes):
    """Yield (name of the function, call) of all calls below syntax nodes."""
    for node in nodes:
        for call in ast.walk(node):
            if isinstance(call, ast.Call):
                yield getattr(call.func, "attr", getattr(call.func, "id", "")), call


def _called(nodes):
    return {name for name, _ in _calls(nodes)}


def _defined(node):
    """Return the flags that absl or argparse is told of below a syntax node."""
    return {
        call.args[0].value.removeprefix("--")
        for name, call in _calls([node])
        if name.startswith("DEFINE_") or name == "add_argument"
        if call.args and isinstance(call.args[0], ast.Constant)
    }


def _imported(node):
    """Return the dotted names that may be modules of an import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _file_of(module, importer):
    """Return the file of a module of the package, or of one beside a script; None for others."""
    for folder in (ROOT, importer.parent):
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        if path.is_file():
            return path
    return None


def has_flag(flags, name):
    return name in flags or name.removeprefix("no") in flags


def commands_of(page):
    """Yield (path from the root, flags) of the command lines in a page."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, rest in re.findall(
        r"(python -m wsss_tf[\w.]*|scripts/[\w/]+\.(?:py|sh))([^`#\n]*)", text
    ):
        if name.startswith("python"):
            name = name.removeprefix("python -m ").replace(".", "/") + ".py"
        words = rest.split(" -- ")[0].split()
        yield name, [word[2:].partition("=")[0] for word in words if word.startswith("--")]


def test_commands_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a `python -m wsss_tf.x --a=1` b\npython scripts/y.py --b \\\n  --c # --d\n")
    assert list(commands_of(page)) == [("wsss_tf/x.py", ["a"]), ("scripts/y.py", ["b", "c"])]


def test_flags_of_a_command():
    infer = flags_of(ROOT / "wsss_tf/infer.py")
    assert {"run_dir", "crf", "runner"} <= infer
    assert "profile_steps" not in infer
    assert "crf" not in flags_of(ROOT / "wsss_tf/evaluate.py")
    assert {"decays", "seeds"} <= flags_of(ROOT / "scripts/ablate_sec.py")
    assert {"clients", "server"} <= flags_of(ROOT / "scripts/serve/load_test.py")


@every_page
def test_commands_exist_and_have_the_flags_they_are_given(page):
    wrong = []
    for name, flags in commands_of(page):
        if not (ROOT / name).is_file():
            wrong.append(name)
            continue
        known = flags_of(ROOT / name) | FOREIGN_FLAGS
        wrong += [f"{name} --{flag}" for flag in flags if not has_flag(known, flag)]
    assert wrong == []


@every_page
def test_named_flags_exist(page):
    commands = [*(ROOT / "wsss_tf").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    known = set().union(FOREIGN_FLAGS, *map(flags_of, commands))
    known |= set().union(*map(flags_of, (ROOT / "scripts").glob("*.sh")))
    named = re.findall(r"(?<![\w-])--(\w+)", page.read_text(encoding="utf-8"))
    assert [flag for flag in named if not has_flag(known, flag)] == []


# === gin ===


@functools.cache
def bindable():
    """Return {function or class: its parameters} of everything public in the package."""
    found = {}
    for path in (ROOT / "wsss_tf").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                names = {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
            elif isinstance(node, ast.ClassDef):
                fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
                names = {field.target.id for field in fields}
            else:
                continue
            found.setdefault(node.name, set()).update(names)
    return found


@every_page
def test_gin_bindings_name_something(page):
    text = page.read_text(encoding="utf-8")
    bindings = re.findall(r"--gin_bindings='?(?:\w+/)?(\w+)\.(\w+)", text)
    bindings += re.findall(
        r"`(?:\w+/)?(Recipe|\w+_(?:source|step|network|augmentation))\.(?!py\b)(\w+)", text
    )
    assert [f"{n}.{p}" for n, p in bindings if p not in bindable().get(n, ())] == []
