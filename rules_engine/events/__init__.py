"""Events: their declarations, their validation, and the state that the online store keeps of them."""
