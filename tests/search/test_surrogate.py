"""The guess is ridge regression, and its error is that of leaving each row out."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge

from peft_interp.search.surrogate import PENALTIES, fit_surrogate


def rows(count: int, dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    return features, features @ torch.arange(1.0, dim + 1).double() + 0.3 * noise


def test_it_guesses_rows_it_has_not_seen() -> None:
    features, values = rows(80)
    fitted = fit_surrogate(features[:40], values[:40])
    correlation = torch.corrcoef(torch.stack((fitted.guess(features[40:]), values[40:])))[0, 1]
    assert correlation > 0.95


@pytest.mark.parametrize("dim", [6, 30])
def test_error_and_choice_of_penalty_are_those_of_leaving_one_out(dim: int) -> None:
    """With more rows than features, and with fewer: the fit takes the smaller matrix of the two."""
    features, values = rows(12, dim)
    fitted = fit_surrogate(features, values)
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    errors = {}
    for penalty in PENALTIES:
        squares = []
        for i in range(12):
            kept = [j for j in range(12) if j != i]
            model = Ridge(alpha=penalty, fit_intercept=False).fit(standard[kept], values[kept] - values.mean())
            squares.append((model.predict(standard[i : i + 1])[0] + values.mean() - values[i]).item() ** 2)
        errors[penalty] = (sum(squares) / 12) ** 0.5
    best = min(errors, key=lambda penalty: errors[penalty])
    whole = Ridge(alpha=best, fit_intercept=False).fit(standard, values - values.mean())
    assert fitted.error == pytest.approx(errors[best])
    torch.testing.assert_close(fitted.weights, torch.from_numpy(whole.coef_))


@pytest.mark.parametrize(("count", "dim", "size"), [(40, 6, 6), (6, 6, 6), (5, 20, 5)])
def test_the_matrix_does_not_grow_with_the_rows(
    count: int, dim: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eigh, sizes = torch.linalg.eigh, []
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (sizes.append(tuple(matrix.shape)), eigh(matrix))[1])
    fit_surrogate(*rows(count, dim))
    assert sizes == [(size, size)]


def test_both_matrices_give_the_same_fit() -> None:
    """Features that are there twice change the matrix that is taken, and with twice the penalty nothing else."""
    features, values = rows(24, dim=16)
    once, twice = fit_surrogate(features, values), fit_surrogate(features.repeat(1, 2), values)
    by_hand = {}
    for name, fitted, width in (("once", once, 1), ("twice", twice, 2)):
        x = ((features - fitted.mean[:16]) / fitted.scale[:16]).repeat(1, width)
        kernel, y = x @ x.T, values - values.mean()
        for penalty in PENALTIES:
            hat = kernel @ torch.linalg.inv(kernel + penalty * torch.eye(24).double())
            error = ((y - hat @ y) / (1 - hat.diagonal())).square().mean().sqrt().item()
            if name not in by_hand or error < by_hand[name][0]:
                by_hand[name] = (error, hat @ y + values.mean())
        assert fitted.error == pytest.approx(by_hand[name][0], rel=1e-9)
        torch.testing.assert_close(fitted.guess(features.repeat(1, width)), by_hand[name][1], rtol=1e-9, atol=1e-9)


def test_more_features_than_rows() -> None:
    features, values = rows(5, dim=20)
    assert bool(fit_surrogate(features, values).guess(features).isfinite().all())


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, values = rows(10)
    features[:, 0] = 3.0
    assert bool(fit_surrogate(features, values).guess(features).isfinite().all())


@pytest.mark.parametrize("values", [torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("nan"), 2.0])])
def test_too_little_is_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="score more prompts"):
        fit_surrogate(torch.zeros(len(values), 2), values)
