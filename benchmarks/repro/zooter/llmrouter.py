"""LLMRouter 0.4's kNN and MLP by the settings of its package and configs, on vectors that are already there.

The label is the first model with the highest performance; kNN has 5 uniform Euclidean neighbours; the MLP 128-64 ReLU,
Adam 1e-3, weight decay 1e-4, batch 32 (its own 100 epochs by the caller).
"""

from itertools import pairwise
from typing import Any

import numpy as np


def labels(reward_PM: np.ndarray) -> np.ndarray:
    return np.nanargmax(reward_PM, axis=1)


def knn(X: np.ndarray, reward_PM: np.ndarray) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=5).fit(X, labels(reward_PM))


def mlp(X: np.ndarray, reward_PM: np.ndarray, epochs: int, seed: int = 0) -> Any:
    import torch

    torch.manual_seed(seed)
    net = torch.nn.Sequential()
    for a, b in pairwise([X.shape[1], 128, 64, reward_PM.shape[1]]):
        net.append(torch.nn.Linear(a, b)).append(torch.nn.ReLU())
    net = net[:-1]
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(labels(reward_PM))
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(32):
            loss = torch.nn.functional.cross_entropy(net(x[at]), y[at])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return net


def mlp_choices(net: Any, Z: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return net(torch.tensor(Z, dtype=torch.float32)).argmax(1).numpy()
