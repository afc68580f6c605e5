<?php

namespace App;

use Doctrine\ORM\EntityManager;
use Doctrine\ORM\ORMSetup;
use Doctrine\ORM\Tools\SchemaTool;
use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait;
use Symfony\Component\Cache\Adapter\PhpFilesAdapter;
use Symfony\Component\DependencyInjection\Loader\Configurator\ContainerConfigurator;
use Symfony\Component\HttpFoundation\JsonResponse;
use Symfony\Component\HttpKernel\Kernel as BaseKernel;
use Symfony\Component\Routing\Loader\Configurator\RoutingConfigurator;

final class Kernel extends BaseKernel
{
    use MicroKernelTrait;

    public function registerBundles(): iterable
    {
        return [new FrameworkBundle()];
    }

    public function getProjectDir(): string
    {
        return dirname(__DIR__);
    }

    /** Makes the table and its 200 rows. */
    public function seed(): JsonResponse
    {
        $manager = $this->manager();
        (new SchemaTool($manager))->createSchema($manager->getMetadataFactory()->getAllMetadata());
        for ($i = 0; $i < 200; $i++) {
            $manager->persist(new Product("Product $i"));
        }
        $manager->flush();

        return new JsonResponse(['seeded' => true]);
    }

    /** Loads them all, and counts them. */
    public function products(): JsonResponse
    {
        $products = $this->manager()->getRepository(Product::class)->findAll();

        return new JsonResponse(['products' => count($products), 'last' => end($products)->name]);
    }

    protected function configureContainer(ContainerConfigurator $container): void
    {
        $container->extension('framework', ['secret' => 'none']);
    }

    protected function configureRoutes(RoutingConfigurator $routes): void
    {
        $routes->add('seed', '/seed')->controller('kernel::seed');
        $routes->add('products', '/products')->controller('kernel::products');
    }

    private function manager(): EntityManager
    {
        $cache = new PhpFilesAdapter('doctrine', 0, $this->getCacheDir());
        $config = ORMSetup::createAttributeMetadataConfiguration([__DIR__], false, $this->getCacheDir().'/proxies', $cache);

        return EntityManager::create(['driver' => 'pdo_sqlite', 'path' => $this->getProjectDir().'/var/products.sqlite'], $config);
    }
}
