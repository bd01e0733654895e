"""Train and cross-validate a classifier on breast-cancer records, with the standard library alone.

An L2-regularised logistic regression on standardised features, fitted by Newton's method; its quality is the
area under the ROC curve (AUC) in a stratified cross-validation. What leaves is the fitted model and its AUC:
a few numbers that every record contributed to, and never a record.

    main.py [--folds 5] [--penalty 1.0]

The records: one line `rows,features,name of class 0,name of class 1`, then a line per record with its
features and its class. Class 0 (malignant) is the one to be detected.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
from operator import mul
from pathlib import Path

MEASURES = (
    "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
).split()
FEATURES = [f"{measure}_{kind}" for kind in ("mean", "error", "worst") for measure in MEASURES]
STEPS = 25
TOLERANCE = 1e-9

Rows = list[list[float]]


def read_records(path: Path) -> tuple[Rows, list[int], str]:
    """Features, 1 for each record of class 0 and else 0, and the name of class 0."""
    with path.open(newline="") as file:
        lines = csv.reader(file)
        header = next(lines)
        records = [[float(value) for value in line] for line in lines if line]
    rows, labels = [r[:-1] for r in records], [int(r[-1] == 0) for r in records]
    if len(rows) != int(header[0]) or any(len(row) != int(header[1]) for row in rows):
        raise SystemExit("the records do not have the rows and features that their first line announces")
    return rows, labels, header[2]


def standardise(rows: Rows) -> tuple[list[float], list[float]]:
    """Mean and scale of each feature."""
    columns = list(zip(*rows, strict=True))
    means = [statistics.fmean(column) for column in columns]
    scales = [statistics.pstdev(column, mean) or 1.0 for column, mean in zip(columns, means, strict=True)]
    return means, scales


def scaled(rows: Rows, means: list[float], scales: list[float]) -> Rows:
    return [[(v - m) / s for v, m, s in zip(row, means, scales, strict=True)] for row in rows]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def solve(matrix: Rows, vector: list[float]) -> list[float]:
    """x with matrix · x = vector, for a symmetric positive definite matrix (Cholesky)."""
    n = len(vector)
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(map(mul, lower[i][:j], lower[j][:j]))
            lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
    y: list[float] = []
    for i in range(n):
        y.append((vector[i] - sum(map(mul, lower[i], y))) / lower[i][i])
    x = [0.0] * n
    for i in reversed(range(n)):
        x[i] = (y[i] - sum(lower[k][i] * x[k] for k in range(i + 1, n))) / lower[i][i]
    return x


def fit(rows: Rows, labels: list[int], penalty: float) -> list[float]:
    """Intercept and coefficients; the intercept is not penalised."""
    columns = [[1.0] * len(rows), *(list(column) for column in zip(*rows, strict=True))]
    weights = [0.0] * len(columns)
    for _ in range(STEPS):
        chances = [sigmoid(weights[0] + sum(map(mul, weights[1:], row))) for row in rows]
        errors = [label - chance for label, chance in zip(labels, chances, strict=True)]
        slope = [sum(map(mul, errors, column)) for column in columns]
        curve = [p * (1 - p) for p in chances]
        hessian: Rows = [[0.0] * len(columns) for _ in columns]
        for i, column in enumerate(columns):
            weighted = list(map(mul, curve, column))
            for j in range(i + 1):
                hessian[i][j] = hessian[j][i] = sum(map(mul, weighted, columns[j]))
        for i in range(1, len(columns)):
            slope[i] -= penalty * weights[i]
            hessian[i][i] += penalty
        step = solve(hessian, slope)
        weights = [w + s for w, s in zip(weights, step, strict=True)]
        if max(map(abs, step)) < TOLERANCE:
            break
    return weights


def auc(scores: list[float], labels: list[int]) -> float:
    """The chance that a record to be detected scores higher than another one; ties count half."""
    ordered = sorted(zip(scores, labels, strict=True))
    ranks, i = 0.0, 0
    while i < len(ordered):
        j = i
        while j < len(ordered) and ordered[j][0] == ordered[i][0]:
            j += 1
        ranks += (i + 1 + j) / 2 * sum(label for _, label in ordered[i:j])
        i = j
    positive = sum(labels)
    return (ranks - positive * (positive + 1) / 2) / (positive * (len(labels) - positive))


def cross_validate(rows: Rows, labels: list[int], folds: int, penalty: float) -> list[float]:
    """The AUC on each fold of a model that never saw it; each class is dealt out in turn."""
    dealt = [0] * len(rows)
    for label in (0, 1):
        for place, index in enumerate(i for i, known in enumerate(labels) if known == label):
            dealt[index] = place % folds
    found = []
    for fold in range(folds):
        train = [i for i in range(len(rows)) if dealt[i] != fold]
        test = [i for i in range(len(rows)) if dealt[i] == fold]
        means, scales = standardise([rows[i] for i in train])
        weights = fit(scaled([rows[i] for i in train], means, scales), [labels[i] for i in train], penalty)
        scores = [
            weights[0] + sum(map(mul, weights[1:], row))
            for row in scaled([rows[i] for i in test], means, scales)
        ]
        found.append(auc(scores, [labels[i] for i in test]))
    return found


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--folds", type=int, default=5)
    options.add_argument("--penalty", type=float, default=1.0)
    chosen = options.parse_args()
    source = Path(os.environ["IEXEC_IN"], os.environ["IEXEC_DATASET_FILENAME"])
    out = Path(os.environ["IEXEC_OUT"])

    rows, labels, detected = read_records(source)
    scores = cross_validate(rows, labels, chosen.folds, chosen.penalty)
    means, scales = standardise(rows)
    weights = fit(scaled(rows, means, scales), labels, chosen.penalty)
    names = FEATURES if len(FEATURES) == len(means) else [f"feature_{i}" for i in range(len(means))]
    result = {
        "model": "logistic regression on standardised features",
        "detects": detected,
        "records": len(rows),
        "folds": chosen.folds,
        "penalty": chosen.penalty,
        "auc": {"mean": round(statistics.fmean(scores), 6), "std": round(statistics.pstdev(scores), 6)},
        "intercept": round(weights[0], 6),
        "coefficients": {n: round(w, 6) for n, w in zip(names, weights[1:], strict=True)},
        "means": {n: round(m, 6) for n, m in zip(names, means, strict=True)},
        "scales": {n: round(s, 6) for n, s in zip(names, scales, strict=True)},
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "computed.json").write_text(json.dumps({"deterministic-output-path": str(out / "result.json")}))
    print(f"{len(rows)} records, AUC {result['auc']}")


if __name__ == "__main__":
    main()
