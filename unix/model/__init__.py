"""The dual-branch network: reading images as text, drawing latents from captions, and the weights it can load."""
