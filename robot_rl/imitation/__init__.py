"""Training chunk models by imitation."""
