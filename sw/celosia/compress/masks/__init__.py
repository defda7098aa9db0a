"""What holds removed weights and filters at zero while a network trains."""
