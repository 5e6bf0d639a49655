"""What stands below each figure, and what is read aloud in its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A figure's caption, and its alternative text: what kind of picture it is, and of what."""

    text: str
    alt: str


BANDS = "Lines are means over seeds, bands one standard deviation."
CAPTIONS: dict[str, dict[str, Caption]] = {
    "svd-init": {
        "dependency": Caption(
            f"Figure 2: how much the first layer depends on the data (equation 7) while training. {BANDS}",
            "Line chart of the dependency ratio against epochs, one line for each kind of first-layer weights.",
        ),
        "curves": Caption(
            f"Training loss and test accuracy by epoch. {BANDS}",
            "Two line charts against epochs, training loss and test accuracy, one line for each kind of weights.",
        ),
        "table1": Caption(
            "Table 1 as a picture: every seed faint, their mean solid; where the data are the document's, its own "
            "number as a diamond.",
            "Three dot plots by kind of weights: loss, train accuracy, test accuracy.",
        ),
        "further": Caption(
            "The further studies: accuracy with W¹ frozen or the norms held, and the mean square of the hidden outputs "
            "as the linearised sigmoid predicts it and as measured.",
            "Two dot plots by kind of weights: test accuracy in three variants, and the mean square norm of x¹.",
        ),
    },
    "svd-dnn": {
        "cost": Caption(
            f"Training cost by epoch, the cut marked. {BANDS}",
            "Line charts of cost against epochs, one for each meaning of α, with the dense net and its factored forms.",
        ),
        "speed": Caption(
            "Speed of an epoch after the cut: what is realised, beside what the count of multiplications allows.",
            "Dot plot by rank rule: realised and allowed speed-up, with a line at 1.",
        ),
        "sweep": Caption(
            "The effect of α and φ over seeds.", "Heat maps of test accuracy by α and φ, one for each meaning of α."
        ),
    },
    "dmn": {
        "widths": Caption(
            "Figure 3, top: test accuracy by filters. Whiskers are one standard deviation over seeds.",
            "Dot plot of test accuracy by number of filters: DMN, DMN with a head in closed form, and ConvNets.",
        ),
        "seconds": Caption(
            "Test accuracy against time since the beginning, fitting included, first seed. The time axis is "
            "logarithmic.",
            "Line chart of test accuracy against seconds for each DMN and its ConvNet.",
        ),
        "sweeps": Caption(
            "Figure 3, bottom: one setting changed at a time. Whiskers are one standard deviation over seeds, small "
            "numbers the filters that came out.",
            "Three line charts of test accuracy: against T_PC, against T_v, against T_frac.",
        ),
        "convergence": Caption(
            f"Figure 1: convergence rates λ of four dense layers, their mean over layers taken off. {BANDS}",
            "Line chart of the de-trended convergence rate against steps, one line a layer.",
        ),
        "fluctuations": Caption(
            "Figure 2: how steps of the eigenvalues of a class's density matrix fall with the number of samples, and "
            "their distribution.",
            "A scatter plot on logarithmic axes beside the line 1/N, and a histogram beside a normal distribution.",
        ),
    },
    "toy": {
        "loss": Caption(
            "Loss by step: medians over nets with their quartiles; thin lines are single nets.",
            "Line charts of loss against steps on logarithmic axes, one for each data set.",
        ),
        "zeros": Caption(
            "Drawn weights, smaller ones, and zeros. Medians over nets with quartiles.",
            "Line charts of loss against steps for three kinds of initial weights, one for each data set.",
        ),
        "steps": Caption(
            "The share of nets that have stopped after so many steps.",
            "Step charts of the share of stopped nets against steps, one for each data set.",
        ),
        "learning-rate": Caption(
            "Figure 4 over seeds: loss by learning rate. Medians over nets with quartiles.",
            "Line charts of loss against steps, one line for each learning rate, one chart for each data set.",
        ),
        "boundaries": Caption(
            "Figure 3's decision boundaries: one net and its points, and the share of all nets that say class 1, with "
            "the borders of ten.",
            "Maps of the plane shaded by the nets' output, with the points of both classes.",
        ),
    },
    "cifar-mlp": {
        "momentum": Caption(
            "Figure 1: cost with and without momentum, and accuracy by learning rate. Whiskers are one standard "
            "deviation over seeds.",
            "Two line charts: cost against epochs, and test accuracy against learning rate.",
        ),
        "rates": Caption(
            "Figure 2: cost by epoch for each learning rate, mean over seeds. A line ends where its net diverged.",
            "Two line charts of cost against epochs, training and validation, one line for each learning rate.",
        ),
        "search": Caption(
            "Figures 3 and 4: every net of the search, by its validation accuracy.",
            "Two scatter plots of validation accuracy: against λ and against η, coarse and fine stage.",
        ),
        "final": Caption(
            f"Figure 5: cost of the final setting. {BANDS}", "Line chart of training and validation cost by epoch."
        ),
        "better": Caption(
            "Test accuracy of single nets: a tick a seed, a dot their mean.",
            "Dot plot of test accuracy by net, the document's setting first.",
        ),
    },
}  # fmt: skip


def caption(experiment: str, stem: str) -> Caption:
    """The caption of a figure by its experiment and the stem of its file's name."""
    found = CAPTIONS.get(experiment, {}).get(stem)
    return found or Caption(stem.replace("-", " ").capitalize(), f"A figure of {experiment}: {stem.replace('-', ' ')}.")
