"""What a prediction of new images is made of; see `nucseg_pipeline.predict`."""
