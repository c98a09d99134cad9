"""Label vectors that do not depend on the text: lookup for a batch, and the table of a compressed prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError

FILE = "prompts.json"


def lay_out(
    vectors: Callable[[Sequence[str]], Tensor],
    labels_of_rows: Sequence[tuple[str, ...]],
    mask: Tensor,
    hidden_size: int,
) -> Tensor:
    """Return the vectors of the labels of each row.

    Parameters
    ----------
    vectors
        Returns the vectors of labels, ``(labels, hidden)``.
    labels_of_rows
        The labels of each row.
    mask
        True where a row has a label, ``(rows, labels)``.
    hidden_size
        Width of the vectors.

    Returns
    -------
    Tensor
        ``(rows, labels, hidden)``, zero for padding; if all rows have the same labels, one tensor expanded to the rows.
    """
    if not mask.shape[1]:
        return torch.zeros(*mask.shape, hidden_size, device=mask.device)
    first = labels_of_rows[0]
    if all(labels is first or labels == first for labels in labels_of_rows):
        return vectors(first).to(mask.device)[None].expand(len(labels_of_rows), -1, -1)
    unique = list(dict.fromkeys(label for labels in dict.fromkeys(labels_of_rows) for label in labels))
    table = vectors(unique).to(mask.device)
    places = {label: place for place, label in enumerate(unique)}
    index = torch.zeros(mask.shape, dtype=torch.long)
    for row, labels in enumerate(labels_of_rows):
        index[row, : len(labels)] = torch.tensor([places[label] for label in labels], dtype=torch.long)
    return table[index.to(mask.device)] * mask[:, :, None]


class PromptTable(nn.Module):
    """Label vectors of a compressed prompt, one for each entity label and each relation label.

    Parameters
    ----------
    entities, relations
        The string that the model reads for each label.
    hidden_size
        Width of the vectors.
    """

    def __init__(self, entities: Sequence[str], relations: Sequence[str], hidden_size: int) -> None:
        super().__init__()
        self.names = {"entity": list(entities), "relation": list(relations)}
        #: Row of each label; a table may have many labels, and each batch looks some up.
        self._places = {
            kind: {label: place for place, label in enumerate(labels)} for kind, labels in self.names.items()
        }
        self.hidden_size = hidden_size
        self.entities = nn.Parameter(torch.zeros(len(entities), hidden_size), requires_grad=False)
        self.relations = nn.Parameter(torch.zeros(len(relations), hidden_size), requires_grad=False)

    def check(self, kind: str, labels: Sequence[str]) -> None:
        """Check that all labels have a vector."""
        known = self._places[kind]
        unknown = [label for label in labels if label not in known]
        if unknown:
            raise ConfigError(
                "components.*.labels" if kind == "entity" else "components.*.relations",
                f"found {unknown[0]!r}, for which the compressed prompt of this model has no vector",
                ", ".join(self.names[kind]) or "none",
                "Compress the prompt again with this label, or use the model before compression",
            )

    def vectors(self, kind: str) -> Callable[[Sequence[str]], Tensor]:
        """Return a function from labels to their vectors."""
        table = self.entities if kind == "entity" else self.relations
        places = self._places[kind]
        return lambda labels: table[[places[label] for label in labels]]

    def save_assets(self, path: Path) -> None:
        """Write the labels."""
        path.mkdir(parents=True, exist_ok=True)
        content = {**self.names, "hidden_size": self.hidden_size}
        (path / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf8")

    @classmethod
    def load_assets(cls, path: Path) -> PromptTable | None:
        """Return a table for the saved labels, without vectors; None if none were saved."""
        if not (path / FILE).is_file():
            return None
        content = json.loads((path / FILE).read_text(encoding="utf8"))
        return cls(content["entity"], content["relation"], content["hidden_size"])
