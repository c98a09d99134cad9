"""Parts of the speed benchmark: its cases, texts and models, the machine's peak, and the plot."""
