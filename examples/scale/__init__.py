"""Training through a layer where one machine is outgrown: by torchrun, over JAX devices, and in sweeps on Ray."""
