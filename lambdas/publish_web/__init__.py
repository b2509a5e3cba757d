"""The web app's shell into its bucket, while the app is deployed."""
