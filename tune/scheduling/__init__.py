"""What runs next, what is stopped, what wins."""
