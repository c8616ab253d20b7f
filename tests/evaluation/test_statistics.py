import numpy as np
import pytest

from llmops.evaluation._statistics import (
    derive_seed,
    paired_bootstrap,
    questions_needed,
    smallest_excludable_loss,
    standard_error,
)


def _scores(seed, questions=200, change=0.1, loss=0.0):
    """Return paired 0/1 scores: a baseline, and a candidate that truly loses ``loss`` against it."""
    generator = np.random.default_rng(seed)
    baseline = (generator.random(questions) < 0.6).astype(float)
    draw = generator.random(questions)
    gain_rate, loss_rate = change - loss / 2, change + loss / 2
    candidate = baseline.copy()
    candidate[(baseline == 0) & (draw < gain_rate / 0.4)] = 1
    candidate[(baseline == 1) & (draw < loss_rate / 0.6)] = 0
    return candidate, baseline


@pytest.mark.parametrize(("statistic", "questions"), [("mean", 150), ("p95", 150), ("mean", 20), ("p95", 20)])
def test_bounds_agree_with_scipy(statistic, questions):
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(3)
    candidate, baseline = generator.gamma(0.5, 1, questions), generator.gamma(0.5, 1.1, questions)
    ours = paired_bootstrap(candidate, baseline, statistic=statistic, seed=1)

    def difference(a, b, axis=-1):
        if statistic == "mean":
            return np.mean(a, axis=axis) - np.mean(b, axis=axis)
        return np.percentile(a, 95, axis=axis) - np.percentile(b, 95, axis=axis)

    theirs = stats.bootstrap(
        (candidate, baseline),
        difference,
        paired=True,
        n_resamples=10_000,
        confidence_level=0.9,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.lower == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.upper == pytest.approx(theirs.high, abs=0.04 * width)


def test_each_bound_holds_with_its_confidence():
    below = above = 0
    for seed in range(400):
        candidate, baseline = _scores(seed, loss=0.05)
        found = paired_bootstrap(candidate, baseline, resamples=1_000, seed=seed)
        below += found.lower > -0.05
        above += found.upper < -0.05
    assert below / 400 < 0.085
    assert above / 400 < 0.085


def test_the_same_seed_gives_the_same_bounds_and_another_seed_others():
    candidate, baseline = _scores(1)
    one = paired_bootstrap(candidate, baseline, seed=5)
    assert one == paired_bootstrap(candidate, baseline, seed=5)
    assert one.lower != paired_bootstrap(candidate, baseline, seed=6, resamples=1_111).lower


def test_equal_scores_give_a_difference_of_exactly_0():
    scores, _ = _scores(1)
    found = paired_bootstrap(scores, scores, seed=1)
    assert (found.estimate, found.lower, found.upper) == (0, 0, 0)


def test_losses_without_wins_are_not_underestimated():
    """Here the plain percentile interval lets 9 % pass at a nominal 5 %."""
    passed = 0
    for seed in range(600):
        losses = -(np.random.default_rng(seed).random(200) < 0.08).astype(float)
        passed += paired_bootstrap(losses, np.zeros(200), resamples=1_000, seed=seed).lower >= -0.08
    assert passed / 600 < 0.075


def test_pairing_makes_the_interval_narrower():
    generator = np.random.default_rng(0)
    hardness = generator.random(200)
    candidate, baseline = hardness + generator.normal(0, 0.05, 200), hardness + generator.normal(0, 0.05, 200)
    paired = paired_bootstrap(candidate, baseline, seed=1)
    broken = paired_bootstrap(candidate, generator.permutation(baseline), seed=1)
    assert (paired.upper - paired.lower) * 3 < broken.upper - broken.lower


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_scores_that_are_no_pairs_are_refused(shapes):
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_standard_error_of_a_mean_agrees_with_its_bootstrap():
    scores, _ = _scores(2)
    closed = standard_error(scores, statistic="mean", resamples=10, seed=0)
    spread = paired_bootstrap(scores, np.zeros_like(scores), confidence=0.8413, seed=1)
    assert closed == pytest.approx((spread.upper - spread.lower) / 2, rel=0.05)
    assert standard_error(scores[:1], statistic="mean", resamples=10, seed=0) == 0


def test_an_equal_candidate_passes_at_the_smallest_loss_as_often_as_the_power_says():
    """The stated power is for scores that correlate by one half, so the simulation makes such scores."""
    generator = np.random.default_rng(11)
    passed, tolerances = 0, []
    for seed in range(400):
        shared = generator.normal(0, 0.2, 150)
        baseline = 0.5 + shared + generator.normal(0, 0.2, 150)
        candidate = 0.5 + shared + generator.normal(0, 0.2, 150)
        error = standard_error(baseline, statistic="mean", resamples=10, seed=0)
        tolerances.append(smallest_excludable_loss(error, 150, confidence=0.95, power=0.8))
        passed += paired_bootstrap(candidate, baseline, resamples=1_000, seed=seed).lower >= -tolerances[-1]
    assert 0.74 < passed / 400 < 0.86


def test_questions_needed_bring_the_smallest_loss_down_to_the_tolerance():
    needed = questions_needed(0.03, 200, 0.02, confidence=0.95, power=0.8)
    error = 0.03 * (200 / needed) ** 0.5
    assert smallest_excludable_loss(error, needed, confidence=0.95, power=0.8) == pytest.approx(
        0.02, rel=0.01
    )
    assert questions_needed(0.0, 20, 0.05, confidence=0.95, power=0.8) == 60


def test_scores_without_spread_still_hide_a_loss_of_three_in_n():
    assert smallest_excludable_loss(0.0, 100, confidence=0.95, power=0.8) == pytest.approx(0.03, abs=1e-3)
    assert smallest_excludable_loss(0.0, 100, confidence=0.95, power=0.8, bounded=False) == 0


def test_seeds_differ_by_what_they_are_for():
    assert derive_seed(1, "recall", None) == derive_seed(1, "recall", None)
    assert (
        len(
            {
                derive_seed(1, "a", "b"),
                derive_seed(1, "ab", ""),
                derive_seed(2, "a", "b"),
                derive_seed(1, "a", None),
            }
        )
        == 4
    )
