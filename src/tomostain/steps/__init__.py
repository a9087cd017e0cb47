"""One public function and one recipe a step: paths in, path out; steps meet only on disk."""
