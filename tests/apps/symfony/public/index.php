<?php

// A Symfony application with one page of Doctrine entities, on Debian's packages, which bring their own loaders.
use App\Kernel;
use Symfony\Component\HttpFoundation\Request;

require_once 'Symfony/Bundle/FrameworkBundle/autoload.php';
require_once 'Symfony/Component/Cache/autoload.php';
require_once 'Doctrine/ORM/autoload.php';
require_once dirname(__DIR__).'/src/Product.php';
require_once dirname(__DIR__).'/src/Kernel.php';

$kernel = new Kernel('prod', false);
$request = Request::createFromGlobals();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
