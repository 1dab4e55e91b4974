"""Precision, recall, F1, area under the ROC curve and the confusion matrix of a classifier."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from metrics import charts
from metrics.base import Column, PredictionMetric, Summary, Value
from metrics.require_columns import require


@dataclasses.dataclass(frozen=True)
class Report(PredictionMetric):
  """Precision, recall and F1 of each class, from `label`, `prediction` and maybe `probability`.

  In sequences [N, T] every position counts; those with the label -1 are left out. Without
  `probability` [..., K] there is no `roc_auc`, and the classes are those that have names.

  Headlines are the macro means `precision`, `recall` and `f1` (Sokolova and Lapalme 2009, table 3,
  with the F1 of each class averaged) over the classes that the split holds, and for two classes
  `roc_auc` of class 1. A class that is present and never predicted has precision 0; one that is
  absent has none, and no recall or F1 either.

  Details are the three for each class, its `support` (examples), and for more than two classes
  `roc_auc/macro`, the mean over one class against the rest, where all are present.
  """

  def check(self, columns: Mapping[str, Column]) -> None:
    require(columns, 'classification.Report', 'label', 'prediction')

  def headlines(self, columns: Mapping[str, Column]) -> tuple[str, ...]:
    two = 'probability' in columns and columns['probability'].shape[-1] == 2
    return ('precision', 'recall', 'f1', *(['roc_auc'] if two else []))

  def summarise(
    self, columns: Mapping[str, np.ndarray], class_names: Sequence[str], details: bool
  ) -> Summary:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    self.check(columns)
    label, prediction = columns['label'], columns['prediction']
    real = label >= 0
    label, prediction = label[real], prediction[real]
    probability = None
    if 'probability' in columns:
      probability = columns['probability'][real].astype(np.float64)
    classes = np.arange(_number(label, prediction, probability, class_names))
    *scores, support = precision_recall_fscore_support(
      label, prediction, labels=classes, average=None, zero_division=0
    )
    present = support > 0
    by_class = {
      name: np.where(present, score, np.nan)
      for name, score in zip(('precision', 'recall', 'f1'), scores, strict=True)
    }
    figures = {name: Value(float(np.mean(score[present]))) for name, score in by_class.items()}
    if probability is not None and len(classes) == 2:
      figures['roc_auc'] = Value(_roc_auc(label, probability[:, 1:], classes[1:]))
    if not details:
      return Summary(figures)

    names = list(class_names) or [str(k) for k in classes]
    if probability is not None and len(classes) > 2:
      figures['roc_auc/macro'] = Value(_roc_auc(label, probability, classes))
    for name, score in {**by_class, 'support': support}.items():
      figures.update({f'{name}/{names[k]}': Value(float(score[k])) for k in classes})
    counts = confusion_matrix(label, prediction, labels=classes)
    picture = charts.to_pixels(charts.confusion_matrix(counts, names))
    return Summary(figures, {'confusion_matrix': counts.tolist()}, {'confusion_matrix': picture})


def _number(
  label: np.ndarray,
  prediction: np.ndarray,
  probability: np.ndarray | None,
  class_names: Sequence[str],
) -> int:
  """Returns the number of classes: K of `probability`, or else those that are named or occur."""
  if probability is not None:
    return probability.shape[1]
  return max(len(class_names), *(1 + int(column.max(initial=-1)) for column in (label, prediction)))


def _roc_auc(label: np.ndarray, probability: np.ndarray, classes: np.ndarray) -> float:
  """Returns the mean over `classes` of the area under the ROC curve of each against the rest.

  Args:
    label: int [N].
    probability: [N, len(classes)].

  Returns:
    The mean; NaN if a class has no examples, or all of them, or a probability is not finite.
  """
  from sklearn.metrics import roc_auc_score

  truth = label[:, None] == classes
  mixed = truth.any(axis=0) & ~truth.all(axis=0)
  if not (mixed.all() and np.isfinite(probability).all()):
    return float('nan')
  # As independent binary labels: `multi_class='ovr'` is the same mean, but refuses probabilities of
  # low precision that do not add up to 1.
  return float(roc_auc_score(truth, probability, average='macro'))
