"""The docstring of each public name stands for itself: arguments, results, errors, and an example that runs."""

import pytest

import safepickle
from docstrings import INTEGRATIONS, PACKAGE, of_integration, of_package, of_reports, run_examples
from pages import ROOT

OF_PACKAGE = list(of_package())
OF_INTEGRATIONS = [documented for path in INTEGRATIONS for documented in of_integration(path)]
OF_REPORTS = list(of_reports())
WITH_EXAMPLES = [each.name.removeprefix("safepickle.") for each in OF_PACKAGE if "Examples" in each.sections]

# The names of other libraries, and the values.
NOT_OURS = {"HIGHEST_PROTOCOL", "DEFAULT_PROTOCOL", "PickleBuffer", "PickleError", "PicklingError", "UnpicklingError"}
NOT_OURS |= {"COMPILED", "register_pickle_by_value", "unregister_pickle_by_value"}
RAISES_NOTHING = {"safepickle.compare_attributes"}


def test_every_public_name_is_looked_at():
    assert {f"safepickle.{name}" for name in set(safepickle.__all__) - NOT_OURS} <= {each.name for each in OF_PACKAGE}
    assert len({each.name.rpartition(".")[0] for each in OF_INTEGRATIONS if not each.is_method}) == len(INTEGRATIONS)
    assert {"Explanation", "Inspection", "Difference"} <= {each.name.rpartition(".")[2] for each in OF_REPORTS}


@pytest.mark.parametrize(
    "documented", OF_PACKAGE + OF_INTEGRATIONS + OF_REPORTS, ids=lambda documented: documented.name
)
def test_docstring_leaves_nothing_out(documented):
    assert documented.missing() == []


@pytest.mark.parametrize("documented", OF_PACKAGE, ids=lambda documented: documented.name)
def test_functions_say_what_they_raise(documented):
    is_function = documented.name.count(".") == 1 and documented.name.rpartition(".")[2][0].islower()
    assert "Raises" in documented.sections or not is_function or documented.name in RAISES_NOTHING


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_the_docstring_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_examples(getattr(safepickle, name), name) > 0


def test_the_reference_has_the_functions_that_are_called_as_their_module():
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = [each.name.rpartition(".")[2] for each in OF_INTEGRATIONS if ".torch." in each.name]
    shadowed = [name for name in names if (PACKAGE / "integrations" / "torch" / f"{name}.py").exists()]
    assert shadowed
    assert [name for name in shadowed if f"::: safepickle.integrations.torch.{name}.{name}\n" not in reference] == []
