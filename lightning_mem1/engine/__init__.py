"""Generation: in this process (`local/`), by vLLM, or by servers (`remote/`); our own server (`serving/`). Touches
policies."""
