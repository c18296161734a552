"""Detectors: fitted on normal inputs, they give every input an anomaly score. Higher = more anomalous, everywhere.

One file per method. `DETECTORS` is the list of names, without loading torch.
"""

from robustgen.registry import Entry

DETECTORS = {
    "pca": Entry("robustgen.detectors.pca:PCADetector", "principal components: distance from or within their subspace"),
    "kernel-pca": Entry("robustgen.detectors.kernel_pca:KernelPCADetector", "the same in a kernel's feature space"),
    "k-means": Entry("robustgen.detectors.k_means:KMeansDetector", "distance to the nearest of k centroids"),
    "knn": Entry("robustgen.detectors.knn:KNNDetector", "distance to the k nearest training inputs"),
    "lof": Entry("robustgen.detectors.lof:LOFDetector", "how much sparser than among its k nearest training inputs"),
    "mahalanobis": Entry(
        "robustgen.detectors.mahalanobis:MahalanobisDetector", "distance from the mean, by covariance"
    ),
    "gaussian-mixture": Entry(
        "robustgen.detectors.gaussian_mixture:GaussianMixtureDetector", "unlikelihood under a mixture of Gaussians"
    ),
    "one-class-svm": Entry(
        "robustgen.detectors.one_class_svm:OneClassSVMDetector", "outside the region that holds most training inputs"
    ),
    "isolation-forest": Entry(
        "robustgen.detectors.isolation_forest:IsolationForestDetector",
        "how few random cuts set an input apart (no gradients)",
    ),
    "fusion": Entry(
        "robustgen.detectors.fusion:FusionDetector",
        "several detectors in one: of tables four densities, of images autoencoder and GAN",
    ),
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
    "simhash": Entry(
        "robustgen.detectors.simhash:SimHashDetector",
        "how seldom inputs of the same hashed code have come before; counts go on (no gradients)",
    ),
    "vae": Entry(
        "robustgen.detectors.vae:VAEDetector",
        "a variational autoencoder: its statistics and code against those of normal inputs",
    ),
    "conditional-vae": Entry(
        "robustgen.detectors.conditional_vae:ConditionalVAEDetector",
        "a variational autoencoder of each class, asked about the class that a classifier predicts",
    ),
    "gan": Entry(
        "robustgen.detectors.gan:GANDetector",
        "a GAN's discriminator, taught with corrupted inputs too, and its features and inversion",
    ),
    "style-gan": Entry(
        "robustgen.detectors.style_gan:StyleGANDetector",
        "a GAN that makes images of styles: what its discriminator says and how well a style can make the input",
    ),
    "conditional-gan": Entry(
        "robustgen.detectors.conditional_gan:ConditionalGANDetector",
        "a GAN of each class whose discriminator knows wrong labels, asked about the class that a classifier predicts",
    ),
    "gat": Entry(
        "robustgen.detectors.gat:GATDetector",
        "the same trained against an attacker: holds best where the attacker knows it",
    ),
    "certified-gat": Entry(
        "robustgen.detectors.certified_gat:CertifiedGATDetector",
        "a discriminator like that of gat, trained so that what no attack can do to it can be proven",
    ),
    "pair-gan": Entry(
        "robustgen.detectors.pair_gan:PairGANDetector",
        "the conditional GAN of image pairs (pix2pix): does a photo fit the picture it was made for, patch by patch",
    ),
    "cycle-gan": Entry(
        "robustgen.detectors.cycle_gan:CycleGANDetector",
        "a translator between normal inputs and another domain, attacked ones for example, and what it must change",
    ),
    "margin": Entry("robustgen.detectors.margin:MarginDetector", "how narrowly a classifier's prediction won"),
    "max-softmax": Entry(
        "robustgen.detectors.max_softmax:MaxSoftmaxDetector", "how unsure a classifier is of its prediction"
    ),
    "max-logit": Entry(
        "robustgen.detectors.max_logit:MaxLogitDetector", "how little speaks for a classifier's prediction"
    ),
    "energy": Entry(
        "robustgen.detectors.energy:EnergyDetector", "how little speaks for any class of a classifier: free energy"
    ),
    "feature-squeezing": Entry(
        "robustgen.detectors.feature_squeezing:FeatureSqueezingDetector",
        "how much a classifier's answer changes with fewer grey levels and smoothing",
    ),
    "magnet": Entry("robustgen.detectors.magnet:MagNetDetector", "how far an autoencoder moves a classifier's answer"),
    "denoise-consistency": Entry(
        "robustgen.detectors.denoise_consistency:DenoiseConsistencyDetector",
        "how far noise, and its removal by a denoiser, moves a classifier's answer",
    ),
    "deep-mahalanobis": Entry(
        "robustgen.detectors.deep_mahalanobis:DeepMahalanobisDetector",
        "distance from the predicted class's mean in the layers of a classifier",
    ),
    "deep-knn": Entry(
        "robustgen.detectors.deep_knn:DeepKNNDetector",
        "how many of the nearest training inputs, in the layers of a classifier, are of other classes than predicted",
    ),
    "kernel-density": Entry(
        "robustgen.detectors.kernel_density:KernelDensityDetector",
        "how few training inputs of the predicted class are near in the last hidden layer of a classifier",
    ),
    "lid": Entry(
        "robustgen.detectors.lid:LIDDetector",
        "in how many dimensions training inputs lie around, in the layers of a classifier",
    ),
}
