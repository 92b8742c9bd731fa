"""Reading a memory out of a model, and starting a model from one."""
