"""Image classification: data, augmentation, models, training and prediction."""
