"""A sampler and a template to a sampler that is given raw text: how base models, without a chat template, answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.errors import InputError
from trimtab.types import Group, Prompt, Sampler, SamplingParams, fingerprint, user_text


@dataclass(frozen=True)
class AsText:
    """A sampler that gives `sampler` raw text instead of messages: how a base model, without a chat template, joins.

    `template` holds {prompt}, for all prompts or by their `source`; `stop` is added to the call's own (a base model
    goes on with the next example). The completions' model carries the hash of both.
    """

    sampler: Sampler
    template: str | Mapping[str, str] = "{prompt}\n"
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in [self.template] if isinstance(self.template, str) else self.template.values():
            if "{prompt}" not in text:
                raise InputError(f"the template {text!r} has no {{prompt}}; say where the prompt stands in it")

    @property
    def model(self) -> str:
        """The sampler's "name@revision", then +, then 8 hex digits of template and stop strings."""
        return f"{self.sampler.model}+{fingerprint([self.template, self.stop])[:8]}"

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        texts = [self._template(p).replace("{prompt}", user_text(p)) for p in prompts]
        raw = [replace(p, messages=({"role": "text", "content": t},)) for p, t in zip(prompts, texts, strict=True)]
        params = replace(params, stop=(*params.stop, *self.stop))
        groups, model = self.sampler(raw, n, params), self.model
        return [
            Group(p, tuple(replace(c, model=model) for c in g.completions))
            for p, g in zip(prompts, groups, strict=True)
        ]

    def _template(self, prompt: Prompt) -> str:
        if isinstance(self.template, str):
            return self.template
        if prompt.source not in self.template:
            raise InputError(f"no template for prompts of {prompt.source!r}; there are: {', '.join(self.template)}")
        return self.template[prompt.source]
