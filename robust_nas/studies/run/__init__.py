"""From a study's config to its finished trials: plan, engine, journal, folder, and what is measured of a network."""
