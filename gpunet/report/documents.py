"""The five documents in a few words: what each says, where its text leaves something open, and what we chose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One place where the text is silent, ambiguous or wrong, and what the experiment does there."""

    what: str
    chosen: str


@dataclass(frozen=True)
class Document:
    """One document, and how its experiment reads it."""

    number: str
    authors: str
    title: str
    kind: str
    says: tuple[str, str, str]
    choices: tuple[Choice, ...]


DOCUMENTS: dict[str, Document] = {
    "svd-init": Document(
        "000", "H. Gu", "Training a 2 Layer Neural Network Using SVD-Generated Weights", "poster",
        (
            "The first layer of a two-layer net need not start from random weights: it can be made from the singular "
            "vectors of the training data.",
            "How much such weights depend on the data is measured by a ratio (equation 7), which rises while training "
            "even from random weights.",
            "Singular vectors taken of each label apart give the best accuracy after five epochs, dividing by singular "
            "values brings nothing, and ten small decompositions cost what one large one does.",
        ),
        (
            Choice("Learning rate, batch size and the initial dependency are not stated.",
                   "0.6, 100 and 0.05, looked at on a validation split."),
            Choice("Whether the norms of the weights are held while training, as condition (*) assumes.",
                   "They are not in the main rows. Rows “norm held” show what holding them costs."),
            Choice("The poster's training accuracies are multiples of 1/300, so they come from 300 samples.",
                   "Ours use the whole training set."),
            Choice("The ratio (7) does not change when W¹ is scaled, so dep in equations 8 and 9 only sets a scale.",
                   "“A larger dependency gives better results” is judged twice: by that scale, and by the ratio "
                   "itself from one kind of weights to the next."),
        ),
    ),
    "svd-dnn": Document(
        "001", "S. Sarnayak, A. Mohanty, S. Temkar",
        "Deep Neural Networks and Accelerating them using Singular Value Decomposition", "report, 2020",
        (
            "A net is trained dense for a fraction φ of its steps; then each hidden weight is cut by a truncated SVD "
            "into two thin factors, which are trained on and multiplied back at the end.",
            "A step through the factors takes fewer multiplications, so training gets faster: 2.7 times on XOR, 1.46 "
            "on pictures of cats, 1.2 on MNIST.",
            "Accuracy does not suffer, and cost even falls, except where the rank is cut too far or the net is small.",
        ),
        (
            Choice("α has two meanings: l = α·min(m, n) in the text, l = α·mn/(m + n) in its authors' code.",
                   "Both, named “dimension” and “break-even”; every row says which."),
            Choice("The bracket of section 3.3.3 puts the bias inside the factors.", "It is added after W₁W₂x."),
            Choice("What becomes of the optimiser's state at the cut is not stated.",
                   "It restarts, as in the authors' code. Rows “carried” keep it."),
            Choice("The count of multiplications includes a gradient of the data that neither net computes.",
                   "“Allowed by the count” leaves it out."),
            Choice("The 2.7-fold speed on XOR is contradicted by the authors' own notebook, three times slower.",
                   "The claim is judged as the text has it; the notebook stands beside it."),
        ),
    ),
    "dmn": Document(
        "002", "N. Dehmamy, N. Rohani, A. Katsaggelos",
        "Direct Estimation of Weights and Efficient Training of Deep Neural Networks without SGD", "paper",
        (
            "Weights near convergence spread along the leading eigenvectors of each class's density matrix, so a layer "
            "can be computed by a class-based PCA instead of trained.",
            "One or two convolutional layers made this way, with a trained classifier on top, are within a point of a "
            "ConvNet on MNIST and better than it on CIFAR-10.",
            "Lower layers converge first, the density matrix settles as 1/N, and a part of the data suffices.",
        ),
        (
            Choice("The authors' early code swaps the two thresholds and drops the component that crosses T_v.",
                   "As in the text: T_v is the share of the variance, T_PC the limit of the correlation."),
            Choice("How long heads and ConvNets train, and at which rate, is not stated.",
                   "Adam 1e-3 at batch 64 for both; heads with a falling rate, chosen on a validation split. "
                   "ConvNets are also shown after three times as many epochs."),
            Choice("Figure 3 gives numbers of filters, but not the T_v behind them.",
                   "Filters follow from our T_v; rows are named by what came out."),
            Choice("CIFAR-10 here is made of JPEG copies of its images.", "Accuracies may differ by a point for that."),
        ),
    ),
    "toy": Document(
        "003", "鄭余玄", "Lab 1", "course work",
        (
            "Backpropagation is derived block by block, so that one recursion trains a sigmoid net of any depth.",
            "On two sets of points in the plane a net of two hidden layers converges until every sample's loss is "
            "small, and predicts every point.",
            "From zero weights it is hard to converge, and with a better learning rate it goes much faster.",
        ),
        (
            Choice("Whether the gradient is summed over the samples or averaged is not stated.",
                   "Summed: only so it converges in the steps of its figures. Rows “mean, not sum” show the other."),
            Choice("Whether the loss is (y − t)² or half of it.",
                   "Half, since its derivative “is simply a subtraction”; the other is shown, too."),
            Choice("The range of the initial weights is not stated.", "Uniform in ±4·√(6/(in + out))."),
            Choice("Equation 4a's ⊗ could be an outer product.", "It is a matrix product: gradients agree with "
                   "central differences only so."),
        ),
    ),
    "cifar-mlp": Document(
        "004", "F. Assarsson", "Assignment 2: 2-layer Mini Batch Gradient Descent", "course work, 2018",
        (
            "A net of one hidden layer, ReLU and softmax, is trained on CIFAR-10 by mini-batch gradient descent with "
            "momentum and an L2 term.",
            "Its gradients are checked against numeric ones, and accuracy is tabulated by learning rate: too small "
            "learns nothing, too large diverges.",
            "A search from coarse to fine over learning rate and L2 ends at 42.55 % test accuracy.",
        ),
        (
            Choice("The number of hidden units is not stated.", "50, the course's."),
            Choice("“We do not preprocess it in any way”, yet without the mean image subtracted η ≥ 0.05 collapses.",
                   "The mean image is subtracted."),
            Choice("The coefficient of momentum is not stated.", "0.9, which lands on its numbers."),
            Choice("After how many epochs the table of learning rates was taken.",
                   "Three, where its numbers are met; the full training stands beside it."),
            Choice("The gradient check claims errors below 1e-6 and prints 3e-3 and 1e-2 for W1 and b1.",
                   "Both measures are shown: by element, and relative to each parameter's largest gradient; the "
                   "second is judged."),
        ),
    ),
}  # fmt: skip
