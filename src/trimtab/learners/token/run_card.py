"""A finished RUN to what its folder says of itself: README.md as a model card, and an adapter that names its base.

peft writes the absolute path of the base's files, and a README of blanks; both are put right here, so that a folder can
be copied elsewhere and read there. It loads nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.json_file import read_json
from trimtab.lm import trained
from trimtab.lm.catalog import CATALOG
from trimtab.publish import publish_text
from trimtab.terminal import markdown


def describe_run(out: Path, card: Mapping[str, Any]) -> None:
    """Writes README.md, and into an adapter's configuration the base's portable name and revision."""
    name, _, revision = str(card["model"]).rpartition("@")
    base, base_revision = trained.portable(name, revision)
    file = out / trained.ADAPTER
    if file.is_file():
        config = read_json(file, "an adapter's configuration") | {
            "base_model_name_or_path": base,
            "revision": base_revision,
        }
        publish_text(file, json.dumps(config, indent=2, sort_keys=True))
    text = readme(card, base, base_revision, adapter=file.is_file())
    publish_text(out / "README.md", text)


def readme(card: Mapping[str, Any], base: str, revision: str, *, adapter: bool) -> str:
    """The model card: what it is, from what, how it was made, how it went, how to load it."""
    settings, loss = card["settings"], card["settings"]["loss"]
    entry = CATALOG.get(base)
    licence = f"the base's: {entry.licence}" if entry else "unknown: that of the base model and of the data hold"
    kind = "A LoRA adapter on" if adapter else "All weights of"
    front = ["---", f"base_model: {json.dumps(base)}", f"library_name: {'peft' if adapter else 'transformers'}",
             "pipeline_tag: text-generation", "tags: [trimtab]", "---", ""]  # fmt: skip
    shown = {k: v for k, v in settings.items() if k not in ("model", "loss", "data", "lora") and v not in (None, {})}
    facts = {
        "base": f"{base}, revision {revision}", "loss": ", ".join(f"{k} {v}" for k, v in loss.items()),
        "data": f"{card['examples'].get('given', '?')} examples, fingerprint {settings['data']}"
                + (f", {n} dropped" if (n := card["examples"].get("dropped")) else ""),
        **({"adapter": settings["lora"]} if adapter else {}),
        "settings": ", ".join(f"{k} {v}" for k, v in shown.items()), "steps": card["steps"],
        "last step": ", ".join(f"{k} {v:.4g}" for k, v in card["last"].items() if isinstance(v, (int, float))),
        "versions": ", ".join(f"{k} {v}" for k, v in card["versions"].items()), "licence": licence,
    }  # fmt: skip
    rows = [f"| {markdown(k)} | {markdown(v)} |" for k, v in facts.items()]
    about = (
        f"{kind} {markdown(base)}, trained with trimtab's `train_policy`; "
        "policy.json holds all settings, log.jsonl all steps. "
        "The figures below are of the training data; an evaluation is no part of this card."
    )
    body = ["", about, "", "| | |", "|---|---|", *rows, "", "## Load it", "", *_loading(base, revision, adapter), ""]
    return "\n".join([*front, f"# {markdown(loss['name'])} on {markdown(base)}", *body])


def _loading(base: str, revision: str, adapter: bool) -> list[str]:
    """Lines for trimtab, for transformers and peft, and for vLLM; FOLDER is this folder, wherever it was copied to."""
    at_hub = base not in CATALOG and "/" in base and not base.startswith((".", "/", "~")) and len(revision) == 40
    ours = [
        "- trimtab: `samplers.HF('FOLDER')`, `samplers.OpenVINO('FOLDER')`, `name = 'FOLDER'` in a task "
        "file; `learners.load_policy('FOLDER')` has its reference, too.",
    ]
    if not adapter:
        return [
            *ours,
            "- transformers: `AutoModelForCausalLM.from_pretrained('FOLDER')`",
            "- vLLM: `vllm serve FOLDER`",
        ]
    if at_hub:
        return [
            *ours,
            "- transformers and peft: `AutoPeftModelForCausalLM.from_pretrained('FOLDER')`",
            f"- vLLM: `vllm serve {base} --revision {revision} --enable-lora --lora-modules policy=FOLDER`",
        ]
    return [
        *ours,
        f"- transformers and peft: `PeftModel.from_pretrained(load_lm({base!r}).model, 'FOLDER')`, with `load_lm` of "
        "trimtab.lm.load, for the base is no hub id",
        "- vLLM and llama.cpp: `trimtab export FOLDER --out MERGED`, then `vllm serve MERGED`",
    ]
