"""Detectors: fitted on normal inputs, they give every input an anomaly score. Higher = more anomalous, everywhere.

One file per method. `DETECTORS` is the list of names, without loading torch.
"""

from robustgen.registry import Entry

DETECTORS = {
    "pca": Entry("robustgen.detectors.pca:PCADetector", "distance from the principal subspace"),
    "k-means": Entry("robustgen.detectors.k_means:KMeansDetector", "distance to the nearest of k centroids"),
    "autoencoder": Entry(
        "robustgen.detectors.autoencoder:AutoencoderDetector",
        "reconstruction and code of an autoencoder: dense, convolutional or residual",
    ),
    "denoising-autoencoder": Entry(
        "robustgen.detectors.denoising_autoencoder:DenoisingAutoencoderDetector",
        "an autoencoder that has learnt to take noise away",
    ),
    "sparse-autoencoder": Entry(
        "robustgen.detectors.sparse_autoencoder:SparseAutoencoderDetector",
        "an autoencoder whose code is mostly off (L1 or KL)",
    ),
    "contractive-autoencoder": Entry(
        "robustgen.detectors.contractive_autoencoder:ContractiveAutoencoderDetector",
        "an autoencoder whose code hardly moves with its input",
    ),
    "vae": Entry(
        "robustgen.detectors.vae:VAEDetector",
        "a variational autoencoder: its statistics and code against those of normal inputs",
    ),
    "conditional-vae": Entry(
        "robustgen.detectors.conditional_vae:ConditionalVAEDetector",
        "a variational autoencoder of each class, asked about the class that a classifier predicts",
    ),
}
