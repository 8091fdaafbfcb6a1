"""The numbers that the paper reports, and its contradictions.

Karnati et al., "Deep Learning for Facial Expression Recognition". Only its text is available, not its
figures: of its confusion matrices only the counts that the text mentions are known.
"""

from typing import NamedTuple

NUM_TEST = 7178  # PublicTest and PrivateTest together, as its counts show; its text says 3,589

FAMILIES = {"resnet": "ResNet", "cnn": "CNN", "mlp": "MLP", "rnn": "RNN"}  # in the order of Table 1
LANGUAGE_MODEL = "GPT-4 Turbo"

# Table 1 and section 6.5; the ResNet is torchvision's ResNet-34, pre-trained and fine-tuned.
TABLE_1 = {"resnet": 0.6872, "cnn": 0.5549, "mlp": 0.4071, "rnn": 0.3980}

# Table 2: correct answers among PER_CLASS images of each class, in the order of ``labels.EXPRESSIONS``. The
# paper prints percentages.
PER_CLASS = 5
TABLE_2 = {
    "MLP": (0, 0, 1, 1, 1, 0, 4),
    "CNN": (2, 3, 3, 5, 0, 3, 5),
    "ResNet": (2, 3, 0, 4, 2, 4, 5),
    "RNN": (0, 0, 4, 0, 0, 0, 1),
    LANGUAGE_MODEL: (1, 2, 2, 3, 3, 4, 4),
}


class Recipe(NamedTuple):
    """One setting of the paper's training recipe (section 4.3), or one that the paper does not mention.

    Attributes:
        key: Dotted key in a run's config.
        value: The paper's value, which a config without the key has too.
        description: The paper's setting in words.
    """

    key: str
    value: object
    description: str


RECIPE = (
    Recipe("data.protocol", "paper", "tested on all of test/"),
    Recipe("data.val_fraction", 0.0, "trained on all of Training"),
    Recipe("data.batch_size", 64, "batches of 64"),
    Recipe("optimizer._target_", "torch.optim.Adam", "Adam"),
    Recipe("optimizer.lr", 0.001, "learning rate 0.001"),
    Recipe("optimizer.weight_decay", 0.0, "no weight decay"),
    Recipe("scheduler.schedule._target_", None, "a constant learning rate"),  # where older runs have it
    Recipe("scheduler._target_", None, "a constant learning rate"),
    Recipe("trainer.max_epochs", 30, "30 epochs"),
    Recipe("trainer.limit_train_batches", 1.0, "all batches of an epoch"),
    Recipe("trainer.gradient_clip_val", None, "no gradient clipping"),
    Recipe("data.drop_leaks", False, "trained on all of Training"),
    Recipe("classifier.label_smoothing", 0.0, "no label smoothing"),  # where older runs have it
    Recipe("classifier.class_weights", "none", "no class weights"),
    Recipe("loss._target_", "fer_lightning.training.losses.CrossEntropy", "cross-entropy"),
    Recipe("loss.label_smoothing", 0.0, "no label smoothing"),
    Recipe("loss.class_weights", "none", "no class weights"),
    Recipe("classifier.ema_decay", 0.0, "no averaged weights"),
    Recipe("classifier.flip_test", False, "no flipped images at test time"),
    Recipe("init_from", None, "no initial checkpoint"),
    Recipe("early_stopping", None, "no early stopping"),
)


class Count(NamedTuple):
    """A number of images that section 6 mentions.

    Attributes:
        family: The model family.
        description: What was counted.
        images: The paper's number.
        cells: Cells of the confusion matrix, as (true class, or None for all; predicted class). For a
            confusion "between" two classes the paper does not say which one is true: both cells are given.
    """

    family: str
    description: str
    images: int
    cells: tuple[tuple[str | None, str], ...]


COUNTS = (
    Count("cnn", "happy classified as happy", 1298, (("happy", "happy"),)),
    Count("cnn", "disgust classified as disgust", 63, (("disgust", "disgust"),)),
    Count("cnn", "sad as neutral / neutral as sad", 219, (("sad", "neutral"), ("neutral", "sad"))),
    Count("cnn", "fear as sad / sad as fear", 193, (("fear", "sad"), ("sad", "fear"))),
    Count("resnet", "happy classified as happy", 1570, (("happy", "happy"),)),
    Count("resnet", "disgust classified as disgust", 71, (("disgust", "disgust"),)),
    Count("mlp", "classified as disgust", 7, ((None, "disgust"),)),
    Count("mlp", "disgust classified as disgust", 2, (("disgust", "disgust"),)),
)

CONTRADICTIONS = (
    "Section 4.3 describes a proportional random sample for each class, but every class of Table 2 has 5 "
    "images.",
    "Section 3 mentions 3,589 test images, but 1,298 and 1,570 happy images are reported as correct, and "
    "those 3,589 contain only 879: Table 1 was measured on the 7,178 images of the folder test/, which "
    "contain 1,774.",
    "Section 6.3 calls the MLP's 40.71 % an accuracy on validation data, section 6.5 one on the test set; "
    "nothing else in the paper is a validation split.",
    "Disgust is called the lowest-performing class of CNN and ResNet because of its 63 and 71 correct "
    "answers; of its 111 images that is a recall of 57 % and 64 %, above the accuracy of the CNN.",
    "Section 7.1 calls the CNN significantly more accurate than GPT-4 Turbo on angry, disgust and fear: that "
    "is 2 or 3 correct answers of 5 against 1 or 2.",
    "The abstract names the data FER-2014, section 4.3 counts 28,7090 training images; both mean FER-2013 "
    "and its 28,709.",
)
