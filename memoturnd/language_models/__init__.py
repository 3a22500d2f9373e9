"""Language models behind HTTP: Anthropic's Messages, and chat completions as OpenAI and many others speak them."""
