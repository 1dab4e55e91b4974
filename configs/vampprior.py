"""`vae_nll.py` with a VampPrior of 500 pseudo-inputs: a mixture of posteriors as the prior.

  python train.py --config=configs/vampprior.py
  python evaluate.py --workdir=runs/vampprior --split=test --checkpoint=best

Published with the same protocol: −log p(x) = 227.35 ± 0.05 nats (arXiv 2004.04795); 70,000 steps,
30 to 100 minutes on 2 CPU cores, reach 227.75 (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import vae_nll
from configs.defaults import average


def get_config(data: str = 'fashion_mnist') -> ConfigDict:
  config = vae_nll.get_config(data)
  config.objective.name = 'vampprior'
  config.modules.pseudo_inputs = dict(name='pseudo_inputs.PseudoInputs', count=500)
  config.ema.pseudo_inputs = average('pseudo_inputs', 0.999)
  # The encoder reads 500 pseudo-inputs beside every batch, so the batch is larger.
  config.data.batch_size = 200
  config.objective.kl_warmup = 10_000
  config.train.steps = 70_000
  return config
