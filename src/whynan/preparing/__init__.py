"""A loss and what is known of it made ready for the analysis: the program, a domain for each input, settings, scripts of witnesses."""
