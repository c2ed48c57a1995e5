"""Task sources: what agents are asked, with the environments that answer them."""
