"""Source changes: `read` sees an expression as terms, `write` puts a changed term back in the user's own idiom, `change` applies it."""
