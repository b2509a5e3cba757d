"""The web app's front: its shell in a private bucket, CloudFront before it and before the API, and the one person who may sign in.

The function, its API and the pool are the trading stack's, because the API is; what needs CloudFront's address is here. Deployed only with
`[dashboard] enabled`; to be rid of it, delete this stack first, then deploy with `enabled = false`.
"""

from __future__ import annotations

from aws_cdk import CfnOutput, CustomResource, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from schema.settings import Settings
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import acknowledge
from stacks.constructs.web_access import WebAccess
from stacks.constructs.web_assets import INDEX, security_policy, web_archive
from stacks.constructs.web_function import WebFunction
from stacks.lake import LakeStack
from stacks.trading import STAGE, TradingStack

API = f"/{STAGE}/app/*"
YEAR = Duration.days(365)


class DashboardStack(Stack):
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        runtime: Runtime,
        lake: LakeStack,
        trading: TradingStack,
        web: WebFunction,
        env: Environment,
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: the web app's front")
        self._settings = settings
        self._global_name = f"{settings.name}-{settings.region}"  # CloudFront has no regions, and the app may be deployed to two
        bucket = self._bucket()
        distribution = self._distribution(bucket, lake=lake, trading=trading, access=web.access)
        self.url = f"https://{distribution.distribution_domain_name}"
        client = self._client(web.access)
        self._invite(web.access)
        config = {"auth": "cognito", "domain": web.access.sign_in.removeprefix("https://"), "client": client.user_pool_client_id}
        self.functions = {"publish_web": self._publish(bucket, runtime=runtime, config=self.to_json_string(config))}
        CfnOutput(self, "DashboardUrl", value=self.url)
        CfnOutput(self, "DashboardClientId", value=client.user_pool_client_id)
        CfnOutput(self, "WebBucket", value=bucket.bucket_name)
        CfnOutput(self, "DistributionId", value=distribution.distribution_id)

    def _bucket(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Shell",
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=RemovalPolicy.DESTROY,  # its files are made from this repository
        )
        acknowledge(bucket, "AwsSolutions-S1", "static files of this repository, which only CloudFront reads and which hold nothing")
        return bucket

    def _distribution(self, bucket: s3.Bucket, *, lake: LakeStack, trading: TradingStack, access: WebAccess) -> cloudfront.Distribution:
        headers = self._headers(lake, access)
        own = cloudfront.S3OriginAccessControl(self, "ShellAccess", origin_access_control_name=self._global_name)
        distribution = cloudfront.Distribution(
            self,
            "Front",
            comment=f"{self._settings.name}: the web app",
            default_root_object=INDEX,
            default_behavior=cloudfront.BehaviorOptions(
                origin=origins.S3BucketOrigin.with_origin_access_control(bucket, origin_access_control=own),
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                response_headers_policy=headers,
            ),
            additional_behaviors={
                API: cloudfront.BehaviorOptions(
                    origin=origins.HttpOrigin(
                        f"{trading.api.rest_api_id}.execute-api.{self.region}.{self.url_suffix}",
                        protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
                        origin_ssl_protocols=[cloudfront.OriginSslPolicy.TLS_V1_2],
                    ),
                    viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
                    allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
                    cache_policy=cloudfront.CachePolicy.CACHING_DISABLED,
                    # The gateway knows itself by its own name; everything else, the token first, passes
                    origin_request_policy=cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
                    response_headers_policy=headers,
                )
            },
            price_class=cloudfront.PriceClass.PRICE_CLASS_100,
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
        )
        for rule, reason in {
            "CFR1": "its owner may travel; who may enter is decided by the token",
            "CFR2": "a firewall costs more than all else here; nothing is answered without a token, and the gateway throttles",
            "CFR3": "the shell is public text, and every request of the API is in the gateway's access log",
            "CFR4": "CloudFront's own certificate fixes the oldest protocol; to choose it takes a domain and a certificate of one's own",
        }.items():
            acknowledge(distribution, f"AwsSolutions-{rule}", reason)
        return distribution

    def _headers(self, lake: LakeStack, access: WebAccess) -> cloudfront.ResponseHeadersPolicy:
        uploads = (lake.processed.bucket_regional_domain_name, lake.processed.bucket_domain_name)  # either is signed for
        policy = security_policy(access.sign_in, *(f"https://{host}" for host in uploads))
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            response_headers_policy_name=self._global_name,
            comment="A strict policy for the web app's shell and API",
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(content_security_policy=policy, override=True),
                content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
                frame_options=cloudfront.ResponseHeadersFrameOptions(frame_option=cloudfront.HeadersFrameOption.DENY, override=True),
                referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                    referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
                ),
                strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                    access_control_max_age=YEAR, include_subdomains=True, override=True
                ),
            ),
            custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(
                custom_headers=[
                    cloudfront.ResponseCustomHeader(header=name, value="same-origin", override=True)
                    for name in ("Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy")
                ]
            ),
        )

    def _client(self, access: WebAccess) -> cognito.UserPoolClient:
        """A browser's: no secret, a code with PKCE, tokens for an hour, and a refresh token that serves once."""
        client = cognito.UserPoolClient(
            self,
            "Browser",
            user_pool=access.pool,
            generate_secret=False,
            auth_flows=cognito.AuthFlow(user_srp=True),
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True),
                scopes=[
                    cognito.OAuthScope.OPENID,
                    *(cognito.OAuthScope.resource_server(access.server, one) for one in access.scopes.values()),
                ],
                callback_urls=[f"{self.url}/"],
                logout_urls=[f"{self.url}/"],
            ),
            supported_identity_providers=[cognito.UserPoolClientIdentityProvider.COGNITO],
            access_token_validity=Duration.hours(1),
            id_token_validity=Duration.hours(1),
            refresh_token_validity=Duration.days(7),
            refresh_token_rotation_grace_period=Duration.seconds(30),
            enable_token_revocation=True,
            prevent_user_existence_errors=True,
        )
        client.node.add_dependency(access.server)
        return client

    def _invite(self, access: WebAccess) -> None:
        user = self._settings.dashboard.user
        cognito.CfnUserPoolUser(
            self,
            "Invited",
            user_pool_id=access.pool.user_pool_id,
            username=user,
            user_attributes=[
                cognito.CfnUserPoolUser.AttributeTypeProperty(name="email", value=user),
                cognito.CfnUserPoolUser.AttributeTypeProperty(name="email_verified", value="true"),
            ],
            desired_delivery_mediums=["EMAIL"],
        )

    def _publish(self, bucket: s3.Bucket, *, runtime: Runtime, config: str) -> PythonFunction:
        archive = web_archive()
        shell = assets.Asset(self, "ShellFiles", path=str(archive.path), asset_hash=archive.key)
        function = PythonFunction(
            self,
            "PublishWeb",
            folder="publish_web",
            bundle="edge",
            runtime=runtime,
            environment={},
            timeout=Duration.minutes(2),
            memory=256,
            description="The web app's files into its bucket, at each deployment",
        )
        function.may("s3:GetObject", on=[shell.bucket.arn_for_objects(shell.s3_object_key)])
        function.may("s3:ListBucket", on=[bucket.bucket_arn])
        function.may(
            "s3:PutObject", "s3:DeleteObject", on=[bucket.arn_for_objects("*")], because="the bucket holds nothing but these files"
        )
        published = CustomResource(
            self,
            "Published",
            service_token=function.function_arn,
            resource_type="Custom::PublishedWeb",
            service_timeout=Duration.minutes(5),
            properties={
                "Bucket": bucket.bucket_name,
                "ArchiveBucket": shell.s3_bucket_name,
                "ArchiveKey": shell.s3_object_key,
                "Config": config,
            },
        )
        published.node.add_dependency(function.own_role)
        return function
