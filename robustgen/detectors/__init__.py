"""Detectors: fitted on normal inputs, they give every input an anomaly score. Higher = more anomalous, everywhere.

One file per method. `DETECTORS` is the list of names, without loading torch.
"""

from robustgen.registry import Entry

DETECTORS = {
    "pca": Entry("robustgen.detectors.pca:PCADetector", "distance from the principal subspace"),
    "k-means": Entry("robustgen.detectors.k_means:KMeansDetector", "distance to the nearest of k centroids"),
    "autoencoder": Entry(
        "robustgen.detectors.autoencoder:AutoencoderDetector",
        "reconstruction error of an autoencoder, dense or convolutional",
    ),
}
