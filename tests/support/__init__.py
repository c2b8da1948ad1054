"""Models, data and finished runs that several tests share."""
