"""How exactly, and how fast, a model runs without gradients: half precision, int8 and compilation."""
