"""The steps that the functions of ``pp`` share."""
